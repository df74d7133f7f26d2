"""SLURM's commands as far as submitit calls them, on this machine, with a file for everything they do.

``sbatch`` runs each job of an array in the background, again for as long as ``scontrol requeue`` asks for it.
"""

import sys
from pathlib import Path

SBATCH = """
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
open(f"{HOME}/submitted.sh", "a").write(script)
first, last = map(int, (re.search("--array=(\\\\d+)-(\\\\d+)", script) or re.search("(0)(0)", "00")).groups())
for task in range(first, last + 1):
    name = f"77_{task}"
    env = dict(SLURM_JOB_ID=str(1000 + task), SLURM_ARRAY_JOB_ID="77", SLURM_ARRAY_TASK_ID=str(task),
               SLURM_NTASKS="1", SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0", SLURM_NNODES="1",
               SLURM_JOB_NUM_NODES="1", SLURM_JOB_NODELIST="node")
    subprocess.Popen([sys.executable, f"{HOME}/daemon.py", name, os.path.abspath(sys.argv[-1])],
                     env={**os.environ, **env}, start_new_session=True,
                     stdout=open(f"{HOME}/{name}.out", "w"), stderr=subprocess.STDOUT)
print("Submitted batch job 77")
"""
DAEMON = """
import os, subprocess, sys
name, script = sys.argv[1:]
again = f"{HOME}/{name}.requeue"
while True:
    open(f"{HOME}/{name}.state", "w").write("RUNNING")
    code = subprocess.call(["bash", script])
    if not os.path.exists(again):
        break
    os.rename(again, again + "d")
open(f"{HOME}/{name}.state", "w").write("FAILED" if code else "COMPLETED")
"""
SRUN = """
import os, sys
words = sys.argv[1:]
start = next(i for i, word in enumerate(words) if os.path.basename(word).startswith("python"))
os.execv(words[start], words[start:])
"""
SACCT = """
import glob, os
print("JobID|State|NodeList")
for path in sorted(glob.glob(f"{HOME}/*.state")):
    print(os.path.basename(path)[:-6], open(path).read(), "node", sep="|")
"""
SCONTROL = """
import sys
open(f"{HOME}/calls", "a").write("scontrol " + " ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "requeue":
    open(f"{HOME}/{sys.argv[2]}.requeue", "w").close()
"""


def install(folder: Path) -> None:
    """Write the commands into ``folder``, which is to stand on the PATH."""
    (folder / "daemon.py").write_text(f"HOME = {str(folder)!r}\n{DAEMON}")
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scontrol": SCONTROL}.items():
        command = folder / name
        command.write_text(f"#!{sys.executable}\nHOME = {str(folder)!r}\n{text}")
        command.chmod(0o755)
