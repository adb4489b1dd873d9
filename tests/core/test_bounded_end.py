"""A process that does not come to an end is ended."""

import subprocess
import sys
import textwrap


def test_a_process_that_hangs_ends_all_the_same() -> None:
    script = """
        import asyncio
        import threading
        from detex_core.bounded_end import end_within

        async def main():
            draining = asyncio.Event()
            bound = asyncio.create_task(end_within(draining, 0.3))
            draining.set()
            await bound
            threading.Thread(target=threading.Event().wait).start()  # which the interpreter waits for
            threading.Event().wait()  # and the event loop stands still

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "no orderly end within 0.3 seconds" in done.stderr
