import json
from pathlib import Path

from cloud_node.audit import AuditLog, AuditRecord
from tests.ops.test_cli import kvwire


def test_a_whole_log_is_told_from_one_that_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    for tenant in ("acme", "other"):
        log.append(AuditRecord(method="Share", tenant=tenant))
    log.close()
    done = kvwire("audit-log", "verify", str(path), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"file": str(path), "records": 2})
    path.write_text(path.read_text().replace("acme", "evil"))
    done = kvwire("audit-log", "verify", str(path))
    assert done.returncode == 1
    assert "line 1" in done.stderr
