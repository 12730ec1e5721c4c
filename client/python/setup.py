"""Generates messages and stubs from the protocol when the package is built."""
import pathlib
import re

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
SERVICES = ("policy_admin", "policy_inference", "policy_training")


def proto_root():
  """The folder that holds esper/v1: the checkout's, or a copy in an sdist."""
  for root in (HERE / "proto", HERE.parent.parent / "proto"):
    if (root / "esper" / "v1").is_dir():
      return root
  raise FileNotFoundError("esper/v1/*.proto not found beside the package; "
                          "install from a whole checkout")


def needed(root, names):
  """`names` and everything of ours that they import, in esper/v1."""
  found = set()
  queue = [f"esper/v1/{name}.proto" for name in names]
  while queue:
    name = queue.pop()
    if name in found:
      continue
    found.add(name)
    text = (root / name).read_text(encoding="utf-8")
    queue += re.findall(r'^import "(esper/v1/[^"]+)";', text, re.MULTILINE)
  return sorted(found)


def generate(package):
  """Writes the package esper_serve._proto below `package`."""
  import grpc_tools
  from grpc_tools import protoc

  root = proto_root()
  out = package / "_proto"
  out.mkdir(parents=True, exist_ok=True)
  well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
  status = protoc.main([
      "protoc", f"-I{root}", f"-I{well_known}", f"--python_out={out}",
      f"--pyi_out={out}", f"--grpc_python_out={out}", *needed(root, SERVICES)
  ])
  if status != 0:
    raise RuntimeError(f"protoc failed with {status}")
  # Ours alone: no top-level package "esper" is installed.
  for path in out.rglob("*.py*"):
    text = path.read_text(encoding="utf-8")
    path.write_text(
        re.sub(r"^from esper\.v1 import",
               "from esper_serve._proto.esper.v1 import", text,
               flags=re.MULTILINE), encoding="utf-8")
  for folder in (out, out / "esper", out / "esper" / "v1"):
    (folder / "__init__.py").touch()


class BuildPy(build_py):
  """Builds the modules, generated ones included."""

  def run(self):
    super().run()
    root = HERE if self.editable_mode else pathlib.Path(self.build_lib)
    generate(root / "esper_serve")


class Sdist(sdist):
  """Takes the protocol along, which lies outside of this folder."""

  def make_release_tree(self, base_dir, files):
    super().make_release_tree(base_dir, files)
    root = proto_root()
    for name in needed(root, SERVICES):
      target = pathlib.Path(base_dir) / "proto" / name
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes((root / name).read_bytes())


setup(cmdclass={"build_py": BuildPy, "sdist": Sdist})
