"""Questions, written by hand before any answer was seen, over files that packages of Debian 12 bring.

    python 2026-11-30-readmes.py short|long OUT

OUT are JSON lines as `kvwire eval --set data=OUT` takes them: the questions beside this script, each with the text of
its file. A file that is missing, or no longer holds the answer, is left out and named.
"""

import json
import sys
from pathlib import Path

length, out = sys.argv[1], Path(sys.argv[2])
records = []
for line in Path(__file__).with_suffix(".jsonl").read_text("utf-8").splitlines():
    asked = json.loads(line)
    path = Path("/usr/share/doc", asked["file"])
    document = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
    if asked["length"] != length:
        continue
    if any(answer in " ".join(document.split()) for answer in asked["answers"]):
        records.append({"context": document, "question": asked["question"], "answers": asked["answers"]})
    else:
        print(f"left out: {asked['file']}: {asked['question']}")
out.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
print(f"{len(records)} questions over {len({record['context'] for record in records})} files")
