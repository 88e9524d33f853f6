"""What must be set before a stage imports torch, which loads OpenMP.

OpenMP's threads spin while they wait for each other. On a busy machine one of them then keeps a core from the very thread that
it waits for: beside one other process a stage of two threads fell to 0.28 of its rate. With a thousand turns (some
microseconds) before a thread sleeps it keeps 0.5, and alone it is 3 % slower (bench/contention.py). A value that the user has
set stays.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
