"""Options that tests of the command line share."""

QUICK = ["--steps", "2", "--size", "32"]


def tiles(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("[0-9]*.png")}


def assert_one_sentence(code, out, err, word):
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("cnnvis-fast")
    assert word in lines[0]
