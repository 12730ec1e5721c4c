"""The README's Gymnasium loop runs as it is printed, and learns."""
import pathlib
import re

import conftest


def test_the_loop_of_the_readme_learns(readme, capsys, monkeypatch):
  section = readme.partition("## Gymnasium\n")[2].partition("\n## ")[0]
  (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
  assert len(code.strip().splitlines()) <= 20
  binary = "bazel-bin/server/esper_server"
  assert binary in code
  server = str(pathlib.Path(conftest.server_binary()).resolve())
  # Fewer updates than printed: enough to see it learn.
  code = code.replace(binary, server).replace("range(20)", "range(5)")
  exec(compile(code, "README.md", "exec"), {})  # pylint: disable=exec-used
  returns = [
      float(value)
      for value in re.findall(r"return ([\d.]+)", capsys.readouterr().out)
  ]
  assert len(returns) == 5
  assert returns[-1] > 1.5 * returns[0]
