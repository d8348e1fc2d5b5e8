from pathlib import Path

import pytest

from tests.conftest import require_or_skip


def test_absent_files_skip_or_fail_and_present_ones_do_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTODO_REQUIRE_FASHION_MNIST", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"Fashion-MNIST is in none of {tmp_path}"):
        require_or_skip(tmp_path)
    monkeypatch.setenv("AUTODO_REQUIRE_FASHION_MNIST", "1")
    with pytest.raises(pytest.fail.Exception):
        require_or_skip(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"damaged, which is for the reader to say")
    require_or_skip(tmp_path)
