"""What every set of manifests must keep, beyond its schemas.

Usage: manifest_rules.py FILE...    each file is a whole set of objects
       manifest_rules.py --flags BAZEL_BIN FILE...   only: the programs know
                                                     the flags they are given
       manifest_rules.py --metrics DOC ALERTS DASHBOARD FILE...   only: metrics
                             are those of metrics.txt, alerts have a run-book

Prints what is broken and exits 1, or prints nothing.
"""
import json
import pathlib
import re
import subprocess
import sys

import yaml

NAME = "app.kubernetes.io/name"
PROGRAMS = {
    "esper_server": "server/esper_server",
    "esper_env": "client/env/esper_env",
    "esper_trainer": "client/trainer/esper_trainer",
    "esperctl": "client/ctl/esperctl",
}


def load(file):
    return [each for each in yaml.safe_load_all(pathlib.Path(file).read_text())
            if each]


def pod_templates(obj):
    """(name, template) of every pod that `obj` makes."""
    spec = obj.get("spec", {})
    if "template" in spec:
        yield obj["metadata"]["name"], spec["template"]
    for role, replica in spec.get("mpiReplicaSpecs", {}).items():
        template = replica["template"]
        labels = template["metadata"].setdefault("labels", {})
        # What the MPI operator adds.
        labels["training.kubeflow.org/job-role"] = role.lower()
        if role == "Worker":
            labels["training.kubeflow.org/replica-index"] = "0"
        yield f"{obj['metadata']['name']}/{role}", template


def selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def flag(arguments, name):
    for argument in arguments:
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
    return None


class Rules:
    """One set of objects; `broken` says what is wrong with it."""

    def __init__(self, objects):
        self.broken = []
        self.objects = objects
        self.pods = [pod for obj in objects for pod in pod_templates(obj)]

    def check(self, holds, what):
        if not holds:
            self.broken.append(what)

    def of(self, kind):
        return [obj for obj in self.objects if obj["kind"] == kind]

    def pods_of(self, selector):
        return [template for _, template in self.pods
                if selects(selector, template["metadata"]["labels"])]

    def run(self):
        names = [(obj["kind"], obj["metadata"]["name"]) for obj in self.objects]
        self.check(len(names) == len(set(names)), "an object comes twice")
        for name, template in self.pods:
            self.pod(name, template)
        for service in self.of("Service"):
            self.service(service)
        for budget in self.of("PodDisruptionBudget"):
            self.budget(budget)
        for scaler in self.of("HorizontalPodAutoscaler"):
            self.scaler(scaler)
        for job in self.of("Job"):
            self.job(job)
        for stateful in self.of("StatefulSet"):
            self.stateful_set(stateful)
        self.network()
        return self.broken

    def pod(self, name, template):
        spec = template["spec"]
        security = spec.get("securityContext", {})
        self.check(security.get("runAsNonRoot") is True and
                   security.get("runAsUser") == 65532,
                   f"{name}: must run as 65532")
        self.check(security.get("seccompProfile", {}).get("type") ==
                   "RuntimeDefault", f"{name}: seccomp")
        self.check(spec.get("automountServiceAccountToken") is False,
                   f"{name}: has a service account token")
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        configs = {obj["metadata"]["name"] for obj in self.of("ConfigMap")}
        for volume in volumes.values():
            if "emptyDir" in volume:
                self.check("sizeLimit" in volume["emptyDir"],
                           f"{name}: emptyDir {volume['name']} has no limit")
            if "configMap" in volume:
                self.check(volume["configMap"]["name"] in configs,
                           f"{name}: no ConfigMap {volume['configMap']}")
        for container in spec["containers"]:
            self.container(name, spec, container, volumes)

    def container(self, name, spec, container, volumes):
        security = container.get("securityContext", {})
        self.check(security.get("allowPrivilegeEscalation") is False and
                   security.get("readOnlyRootFilesystem") is True and
                   security.get("capabilities", {}).get("drop") == ["ALL"],
                   f"{name}: container is not restricted")
        resources = container.get("resources", {})
        limits, requests = (resources.get("limits", {}),
                            resources.get("requests", {}))
        self.check(limits.get("memory") and
                   limits.get("memory") == requests.get("memory"),
                   f"{name}: memory request and limit must be equal")
        self.check("cpu" in requests and "cpu" not in limits,
                   f"{name}: a CPU request, and no CPU limit, which throttles")
        gpus = limits.get("nvidia.com/gpu")
        self.check("nvidia.com/gpu" not in requests and
                   (gpus is None or isinstance(gpus, int)),
                   f"{name}: GPUs belong in limits, as whole numbers")
        if gpus:
            self.check(any(toleration.get("key") == "nvidia.com/gpu"
                           for toleration in spec.get("tolerations", [])),
                       f"{name}: tolerates no GPU node")
        self.check(container.get("command"), f"{name}: no exec-form command")
        mounts = {mount["mountPath"]: mount["name"]
                  for mount in container.get("volumeMounts", [])}
        claims = {claim["metadata"]["name"] for obj in self.of("StatefulSet")
                  for claim in obj["spec"].get("volumeClaimTemplates", [])}
        for mounted in mounts.values():
            self.check(mounted in volumes or mounted in claims,
                       f"{name}: no volume {mounted}")
        for argument in container.get("args", []):
            value = argument.partition("=")[2]
            if (value.startswith(("/etc/", "/var/"))
                    and container["command"] != ["mpirun"]):
                self.check(any(value.startswith(path + "/") or value == path
                               for path in mounts),
                           f"{name}: nothing is mounted at {argument}")
        self.addresses(name, container)
        if container["command"] == ["/usr/bin/esper_server"]:
            self.server(name, spec, container)

    def addresses(self, name, container):
        """Names that a container calls are services with that port."""
        for key in ("policy_address", "coordinator", "follow"):
            address = flag(container.get("args", []), key)
            if address is None:
                continue
            host, _, port = address.rpartition(":")
            first, _, second = host.partition(".")
            service = [obj for obj in self.of("Service")
                       if obj["metadata"]["name"] == (second or first)]
            self.check(service, f"{name}: nothing is called {address}")
            if not service:
                continue
            ports = {each["port"] for each in service[0]["spec"]["ports"]}
            self.check(int(port) in ports, f"{name}: {address}: no such port")
            if second:
                self.check(
                    service[0]["spec"].get("clusterIP") == "None" and
                    any(obj["spec"]["serviceName"] == second and
                        first == obj["metadata"]["name"] + "-0"
                        for obj in self.of("StatefulSet")),
                    f"{name}: {address} is no pod of a StatefulSet")

    def server(self, name, spec, container):
        arguments = container["args"]
        health = flag(arguments, "health_address") or ":0"
        port = int(health.rpartition(":")[2])
        for probe, service in (("startupProbe", "liveness"),
                               ("livenessProbe", "liveness"),
                               ("readinessProbe", "readiness")):
            self.check(container.get(probe, {}).get("grpc") ==
                       {"port": port, "service": service},
                       f"{name}: {probe} must ask {service} on the health port")
        stop = container.get("lifecycle", {}).get("preStop", {})
        seconds = stop.get("sleep", {}).get("seconds", 0)
        self.check(seconds >= 5, f"{name}: no preStop sleep")
        self.check(spec["terminationGracePeriodSeconds"] >= seconds + 30,
                   f"{name}: no time to drain and save")
        declared = {each["containerPort"] for each in container["ports"]}
        for key in ("address", "admin_address", "health_address",
                    "metrics_address"):
            listens = flag(arguments, key)
            if listens:
                self.check(int(listens.rpartition(":")[2]) in declared,
                           f"{name}: --{key} is no port of the container")
        secured = flag(arguments, "tls_client_ca_file") and flag(
            arguments, "access_file")
        self.check(bool(secured) != ("--insecure" in arguments),
                   f"{name}: either credentials or --insecure")

    def service(self, service):
        name = service["metadata"]["name"]
        pods = self.pods_of(service["spec"]["selector"])
        self.check(pods, f"service {name} selects nothing")
        for port in service["spec"].get("ports", []):
            self.check("appProtocol" in port, f"service {name}: appProtocol")
            for pod in pods:
                names = {each["name"] for container in pod["spec"]["containers"]
                         for each in container.get("ports", [])}
                self.check(port["targetPort"] in names,
                           f"service {name}: pods have no port {port['name']}")

    def budget(self, budget):
        spec = budget["spec"]
        name = budget["metadata"]["name"]
        self.check(spec.get("maxUnavailable") == 1 and
                   spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow",
                   f"budget {name}")
        self.check(self.pods_of(spec["selector"]["matchLabels"]),
                   f"budget {name} selects nothing")

    def scaler(self, scaler):
        name = scaler["metadata"]["name"]
        target = scaler["spec"]["scaleTargetRef"]
        found = [obj for obj in self.of(target["kind"])
                 if obj["metadata"]["name"] == target["name"]]
        self.check(found and "replicas" not in found[0]["spec"],
                   f"scaler {name}: its target must exist and set no replicas")
        self.check(all(metric["type"] == "Pods"
                       for metric in scaler["spec"]["metrics"]),
                   f"scaler {name}: must scale by the queue")
        down = scaler["spec"]["behavior"]["scaleDown"]
        self.check(down["stabilizationWindowSeconds"] >= 300,
                   f"scaler {name}: scales down too soon")

    def job(self, job):
        spec = job["spec"]
        name = job["metadata"]["name"]
        self.check(spec.get("completionMode") == "Indexed" and
                   "backoffLimitPerIndex" in spec and
                   spec.get("podReplacementPolicy") == "Failed",
                   f"job {name}: an index must not run twice")
        rules = {rule["action"]: rule
                 for rule in spec["podFailurePolicy"]["rules"]}
        ignored = rules.get("Ignore", {}).get("onPodConditions", [])
        self.check({"type": "DisruptionTarget", "status": "True"} in ignored,
                   f"job {name}: disruptions count as failures")
        self.check("FailJob" in rules, f"job {name}: retries the hopeless")
        services = {obj["metadata"]["name"] for obj in self.of("Service")}
        self.check(spec["template"]["spec"].get("subdomain") in services,
                   f"job {name}: its pods have no names")

    def stateful_set(self, stateful):
        name = stateful["metadata"]["name"]
        service = stateful["spec"]["serviceName"]
        self.check(any(obj["metadata"]["name"] == service
                       and obj["spec"].get("clusterIP") == "None"
                       for obj in self.of("Service")),
                   f"{name}: no headless service")

    def network(self):
        policies = self.of("NetworkPolicy")
        if not policies:
            return  # Switched off as a whole.
        denied = [each for each in policies
                  if set(each["spec"]["policyTypes"]) == {"Ingress", "Egress"}
                  and "ingress" not in each["spec"]]
        for name, template in self.pods:
            labels = template["metadata"]["labels"]
            self.check(any(selects(each["spec"]["podSelector"]["matchLabels"],
                                   labels) for each in denied),
                       f"{name}: no policy denies by default")
        for policy in policies:
            for rule in policy["spec"].get("ingress", []):
                self.check(rule.get("from"),
                           f"policy {policy['metadata']['name']}: lets all in")


def known_flags(bazel_bin, program):
    shown = subprocess.run([f"{bazel_bin}/{PROGRAMS[program]}", "--help"],
                           capture_output=True, text=True, timeout=60)
    return set(re.findall(r"^ +--([a-z0-9_]+) \(", shown.stdout, re.M))


def check_flags(bazel_bin, files):
    known = {program: known_flags(bazel_bin, program) for program in PROGRAMS}
    broken = set()
    for file in files:
        for obj in load(file):
            for name, template in pod_templates(obj):
                for container in template["spec"]["containers"]:
                    words = container["command"] + container.get("args", [])
                    programs = [pathlib.Path(word).name for word in words
                                if pathlib.Path(word).name in PROGRAMS]
                    if not programs:
                        continue
                    own = words[[pathlib.Path(word).name
                                 for word in words].index(programs[0]):]
                    for word in own:
                        if not word.startswith("--"):
                            continue
                        option = word[2:].partition("=")[0]
                        if option not in known[programs[0]]:
                            broken.add(f"{programs[0]} has no flag --{option}")
    return sorted(broken)


def check_metrics(doc, alerts, dashboard, files):
    text = pathlib.Path(__file__).with_name("metrics.txt").read_text()
    lines = [line.split() for line in text.splitlines()
             if line and not line.startswith("#")]
    known = {line[0] for line in lines}
    broken = []
    expressions = []
    book = pathlib.Path(doc).read_text()
    for group in yaml.safe_load(pathlib.Path(alerts).read_text())["groups"]:
        for rule in group["rules"]:
            expressions.append(rule["expr"])
            name = rule["alert"]
            if f"#{name.lower()}:" not in rule["annotations"]["runbook"]:
                broken.append(f"{name}: its run-book names another section")
            if f"\n### {name}\n" not in book:
                broken.append(f"{name}: {doc} has no section for it")
    for panel in json.loads(pathlib.Path(dashboard).read_text())["panels"]:
        for target in panel.get("targets", []):
            expressions.append(target["expr"])
    shown = " ".join(expressions)
    for file in files:
        for obj in load(file):
            if obj["kind"] == "HorizontalPodAutoscaler":
                expressions += [metric["pods"]["metric"]["name"]
                                for metric in obj["spec"]["metrics"]]
    for expression in expressions:
        for name in re.findall(r"\besper_\w+", expression):
            if re.sub(r"_(bucket|sum|count)$", "", name) not in known:
                broken.append(f"metrics.txt has no {name}")
    for name in sorted(known):
        if name not in shown:
            broken.append(f"neither alert nor panel shows {name}")
    return broken


def main(arguments):
    if arguments[0] == "--flags":
        broken = check_flags(arguments[1], arguments[2:])
    elif arguments[0] == "--metrics":
        broken = check_metrics(*arguments[1:4], arguments[4:])
    else:
        broken = [f"{file}: {what}" for file in arguments
                  for what in Rules(load(file)).run()]
    for what in broken:
        print(what)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
