"""Settings -> Studio -> launch: what ``make run`` and a Hugging Face Space run. The code is in `sage_studio.launch`."""

import sys

from sage_studio.launch import main

if __name__ == "__main__":
    sys.exit(main())
