"""Makes libraries of the system's packages visible as @system//:NAME."""

_TARGET = """
cc_library(
    name = "{name}",
    copts = [],
    defines = {defines},
    linkopts = {linkopts},
    visibility = ["//visibility:public"],
)
"""

def _pkg_config(ctx, what, modules):
    result = ctx.execute(["pkg-config", what] + modules)
    if result.return_code != 0:
        fail("pkg-config %s %s: %sInstall the system packages first: " %
             (what, " ".join(modules), result.stderr) + "deploy/bootstrap.sh")
    return [flag for flag in result.stdout.strip().split(" ") if flag]

def _system_repository_impl(ctx):
    build = ""
    for name, modules in ctx.attr.modules.items():
        # Headers lie in /usr/include, which the compiler searches by itself.
        cflags = _pkg_config(ctx, "--cflags-only-other", modules)
        defines = [flag[2:] for flag in cflags if flag.startswith("-D")]
        build += _TARGET.format(
            name = name,
            defines = repr(defines),
            linkopts = repr(_pkg_config(ctx, "--libs", modules)),
        )
    ctx.file("BUILD", build)

system_repository = repository_rule(
    implementation = _system_repository_impl,
    attrs = {
        "modules": attr.string_list_dict(
            mandatory = True,
            doc = "target name -> pkg-config modules",
        ),
    },
    local = True,
    doc = "cc_library targets for installed packages.",
)
