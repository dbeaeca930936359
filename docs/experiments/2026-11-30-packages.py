"""Questions over what real packages say of themselves.

    python 2026-11-30-packages.py STATUS OUT values|lines LOW HIGH

STATUS is /var/lib/dpkg/status of a Debian machine; OUT are JSON lines as `kvwire eval --set data=OUT` takes them, one
question a package whose document has LOW to HIGH characters. `values` asks for one field's value, `lines` for a whole
line of up to 160 characters. Nothing of it is in any training.
"""

import json
import random
import sys
from email import message_from_string
from email.utils import parseaddr
from pathlib import Path

ASKED = {
    "values": {
        "Version": "What is the version of {}?",
        "Maintainer": "What is the e-mail address of the maintainer of {}?",
        "Homepage": "What is the homepage of {}?",
        "Installed-Size": "What is the installed size of {}?",
        "Section": "In which section is {}?",
        "Depends": "What does {} depend on first?",
    },
    "lines": {
        "Depends": "What does {} depend on? Give the whole line.",
        "Description": "How is {} described in one line?",
    },
}
LEFT_OUT = {"Status", "Conffiles", "Description-md5", "Breaks", "Replaces", "Conflicts", "Provides"}


status, out, kind, low, high = (
    Path(sys.argv[1]),
    Path(sys.argv[2]),
    sys.argv[3],
    int(sys.argv[4]),
    int(sys.argv[5]),
)
asked = ASKED[kind]
stanzas = [
    message_from_string(text) for text in status.read_text(encoding="utf-8").split("\n\n") if text.strip()
]
random.Random(7).shuffle(stanzas)
records, wanted = [], list(asked)
for stanza in stanzas:
    field = wanted[len(records) % len(wanted)]
    document = "\n".join(f"{key}: {value}" for key, value in stanza.items() if key not in LEFT_OUT)
    value = stanza.get(field, "").split("\n")[0].strip()
    if kind == "values" and field == "Maintainer":
        value = parseaddr(value)[1]
    if kind == "values" and field == "Depends":
        value = value.split(",")[0].split("(")[0].split("|")[0].strip()
    if value and len(value) <= 160 and low <= len(document) <= high:
        question = asked[field].format(stanza["Package"])
        records.append({"context": document, "question": question, "answers": [value]})
out.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
print(f"{len(records)} questions")
