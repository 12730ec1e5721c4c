"""C++ code out of .proto files by the system's protoc and gRPC plugin."""

def cc_grpc_library(name, srcs, import_root, deps = [], protos = [], visibility = None):
    """Messages and service stubs as one cc_library.

    Args:
      name: of the cc_library.
      srcs: .proto files of this package.
      import_root: folder that the files' import paths start from, relative to
        the workspace; must be this package's path.
      deps: libraries of the messages that the files import.
      protos: the .proto files of `deps`.
      visibility: as everywhere.
    """
    outs = []
    for src in srcs:
        base = src[:-len(".proto")]
        for suffix in [".pb.h", ".pb.cc", ".grpc.pb.h", ".grpc.pb.cc"]:
            outs.append(base + suffix)
    native.genrule(
        name = name + "_codegen",
        srcs = srcs + protos,
        outs = outs,
        cmd = " ".join([
            "protoc",
            "-I%s" % import_root,
            "-I/usr/include",
            "--cpp_out=$(RULEDIR)",
            "--grpc_out=generate_mock_code=false:$(RULEDIR)",
            "--plugin=protoc-gen-grpc=$$(which grpc_cpp_plugin)",
        ] + ["$(location %s)" % src for src in srcs]),
    )
    native.cc_library(
        name = name,
        srcs = [out for out in outs if out.endswith(".cc")],
        hdrs = [out for out in outs if out.endswith(".h")],
        copts = ["-Wno-all"],
        includes = ["."],
        visibility = visibility,
        deps = deps + ["@system//:grpc"],
    )
