"""`python -m detex_trainer.intake.segmenters`: a request on standard input, masks as files, the answer on output."""

import sys

from detex_trainer.intake.segmenters.segmentation import SegmentationRequest, segment_files

if __name__ == "__main__":
    request = SegmentationRequest.model_validate_json(sys.stdin.buffer.read())
    sys.stdout.write(segment_files(request).model_dump_json())
