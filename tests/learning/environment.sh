# Sourced by the learning proofs: builds the programs, and installs the packages
# of the given requirement files once, into build/.

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# One core a run.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

install_packages() {
  local site="build/learning-python" file stamp
  mkdir -p "$site"
  for file in "$@"; do
    stamp="$site/.$(sha256sum <"tests/learning/$file" | cut -c1-16)"
    [ -e "$stamp" ] && continue
    /usr/bin/python3 -m pip install --quiet --upgrade --target "$site" \
      -r "tests/learning/$file"
    touch "$stamp"
  done
  export PYTHONPATH="$PWD/$site"
}

# For proofs that train through the Python client.
prepare() {
  bazel build //server:esper_server
  install_packages "$@"
  # Every time: it is small, and may have changed.
  /usr/bin/python3 -m pip install --quiet --upgrade --no-deps \
    --target "$PYTHONPATH" ./client/python
}

# For proofs that grow networks.
prepare_growing() {
  bazel build //server:esper_server //client/env:esper_env \
    //client/trainer:esper_trainer
  install_packages requirements_growing.txt
}
