"""Breaks good manifests, one thing at a time: manifest_rules.py must notice.

Usage: manifest_rules_test.py FILE...   the widest set of them is broken
"""
import copy
import sys
import unittest

from manifest_rules import Rules, load

FILES = []


def container(objects, kind="StatefulSet", name="esper-server"):
    return pod(objects, kind, name)["containers"][0]


def pod(objects, kind="StatefulSet", name="esper-server"):
    return find(objects, kind, name)["spec"]["template"]["spec"]


def find(objects, kind, name):
    return next(obj for obj in objects if obj["kind"] == kind
                and obj["metadata"]["name"] == name)


def drop_argument(objects, start):
    arguments = container(objects)["args"]
    arguments[:] = [each for each in arguments if not each.startswith(start)]


def remove(objects, kind, name):
    objects.remove(find(objects, kind, name))


BREAKS = {
    "root": lambda o: pod(o)["securityContext"].pop("runAsNonRoot"),
    "another user": lambda o: pod(o)["securityContext"].update(runAsUser=0),
    "seccomp": lambda o: pod(o)["securityContext"].pop("seccompProfile"),
    "token": lambda o: pod(o).pop("automountServiceAccountToken"),
    "writable root": lambda o: container(o)["securityContext"].update(
        readOnlyRootFilesystem=False),
    "capabilities": lambda o: container(o)["securityContext"].pop(
        "capabilities"),
    "endless emptyDir": lambda o: next(
        volume for volume in pod(o)["volumes"] if "emptyDir" in volume
    )["emptyDir"].clear(),
    "no memory limit": lambda o: container(o)["resources"]["limits"].pop(
        "memory"),
    "CPU limit": lambda o: container(o)["resources"]["limits"].update(cpu=1),
    "GPU request": lambda o: container(o)["resources"]["requests"].update(
        {"nvidia.com/gpu": 1}),
    "no volume": lambda o: pod(o)["volumes"].pop(),
    "no mount": lambda o: container(o)["volumeMounts"].remove(
        next(mount for mount in container(o)["volumeMounts"]
             if mount["name"] == "config")),
    "no probe": lambda o: container(o).pop("readinessProbe"),
    "probe of the main port": lambda o: container(o)["livenessProbe"][
        "grpc"].update(port=50051),
    "no preStop": lambda o: container(o).pop("lifecycle"),
    "no grace": lambda o: pod(o).update(terminationGracePeriodSeconds=20),
    "no client CA": lambda o: drop_argument(o, "--tls_client_ca_file"),
    "port not declared": lambda o: container(o)["ports"].pop(0),
    "lost ConfigMap": lambda o: [
        o.remove(each) for each in list(o) if each["kind"] == "ConfigMap"],
    "service selects nothing": lambda o: find(o, "Service", "esper-server")[
        "spec"]["selector"].update({"app.kubernetes.io/component": "x"}),
    "service port": lambda o: find(o, "Service", "esper-server")["spec"][
        "ports"][0].update(targetPort="x"),
    "no headless service": lambda o: remove(o, "Service", "esper-server-pods"),
    "budget": lambda o: find(o, "PodDisruptionBudget", "esper-server")[
        "spec"].update(maxUnavailable=0),
    "scaler's target": lambda o: find(
        o, "HorizontalPodAutoscaler", "esper-followers")["spec"][
            "scaleTargetRef"].update(name="x"),
    "replicas under a scaler": lambda o: find(
        o, "StatefulSet", "esper-followers")["spec"].update(replicas=2),
    "hasty scaler": lambda o: find(
        o, "HorizontalPodAutoscaler", "esper-followers")["spec"]["behavior"][
            "scaleDown"].update(stabilizationWindowSeconds=0),
    "index twice": lambda o: find(o, "Job", "esper-environments")["spec"].pop(
        "podReplacementPolicy"),
    "disruptions count": lambda o: find(o, "Job", "esper-environments")["spec"][
        "podFailurePolicy"]["rules"].pop(0),
    "unknown coordinator": lambda o: remove(o, "Service", "esper-trainer"),
    "no default policy": lambda o: remove(
        o, "NetworkPolicy", "esper-default-deny"),
    "policy lets all in": lambda o: find(o, "NetworkPolicy", "esper-server")[
        "spec"]["ingress"][0].pop("from"),
    "object twice": lambda o: o.append(copy.deepcopy(o[0])),
}


class ManifestRulesTest(unittest.TestCase):

    def test_each_break_is_noticed(self):
        widest = max((load(file) for file in FILES), key=len)
        self.assertEqual(Rules(copy.deepcopy(widest)).run(), [])
        for name, change in BREAKS.items():
            with self.subTest(name):
                broken = copy.deepcopy(widest)
                change(broken)
                self.assertNotEqual(Rules(broken).run(), [])


if __name__ == "__main__":
    FILES = sys.argv[1:]
    unittest.main(argv=sys.argv[:1])
