# Sourced by the learning proofs: builds the server, and installs the Python
# client and the packages of the given requirement files once, into build/.

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

prepare() {
  local site="build/learning-python" file stamp
  bazel build //server:esper_server
  mkdir -p "$site"
  for file in "$@"; do
    stamp="$site/.$(sha256sum <"tests/learning/$file" | cut -c1-16)"
    [ -e "$stamp" ] && continue
    /usr/bin/python3 -m pip install --quiet --upgrade --target "$site" \
      -r "tests/learning/$file"
    touch "$stamp"
  done
  # Every time: it is small, and may have changed.
  /usr/bin/python3 -m pip install --quiet --upgrade --no-deps \
    --target "$site" ./client/python
  export PYTHONPATH="$PWD/$site"
  # One core a run.
  export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
}
