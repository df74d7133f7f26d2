"""What the jobs of a scripted sweep do."""

import json

DONE = "import json; json.dump({'metrics': {'loss': {'mean': 2.0, 'ci95': 0.5}}}, open('metrics.json', 'w'))"
NOTE = """
import json, os, time
start = time.time()
time.sleep(0.2)
seen = {name: os.environ.get(name) for name in ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS')}
json.dump({'start': start, 'end': time.time(), **seen}, open('seen.json', 'w'))
"""
SAVES = """
import signal, sys, time
def save(number, frame):
    open('saved', 'w').write(str(number))
    sys.exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, save)
open('ready', 'w').close()
for _ in range(600):
    time.sleep(0.1)
"""


def seen(sweep):
    """What the jobs with the script NOTE saw."""
    return [json.loads((sweep.path(job) / "seen.json").read_text()) for job in sweep.jobs]
