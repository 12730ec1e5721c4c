"""Brings LibTorch out of the pinned PyPI wheel as the repository @torch."""

_BUILD = """
cc_library(
    name = "torch",
    srcs = glob(["lib/*.so*"]),
    hdrs = glob(["include/**"]),
    includes = ["include", "include/torch/csrc/api/include"],
    visibility = ["//visibility:public"],
)
"""

# Wheel tags under which PyPI files the pinned versions.
_PLATFORMS = [
    "manylinux_2_28_x86_64",
    "manylinux_2_25_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
]

def _run(ctx, arguments, what):
    result = ctx.execute(arguments, timeout = 1800)
    if result.return_code != 0:
        fail("%s failed (run deploy/bootstrap.sh first?):\n%s%s" %
             (what, result.stdout, result.stderr))

def _torch_repository_impl(ctx):
    command = ["python3", "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--require-hashes"]
    command += ["--only-binary=:all:", "--python-version", "3.11"]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    command += ["-d", "wheels", "-r", str(ctx.path(ctx.attr.requirements))]
    _run(ctx, command, "pip download of LibTorch")
    _run(
        ctx,
        ["python3", str(ctx.path(ctx.attr._extract)), "wheels", "."],
        "unpacking the LibTorch wheels",
    )
    ctx.delete("wheels")
    ctx.file("BUILD", _BUILD)

torch_repository = repository_rule(
    implementation = _torch_repository_impl,
    attrs = {
        "requirements": attr.label(mandatory = True, allow_single_file = True),
        "_extract": attr.label(default = "//third_party/torch:extract_wheels.py"),
    },
    doc = "LibTorch's headers and CPU libraries; sha256 checked by pip.",
)
