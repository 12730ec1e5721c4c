"""Settings of the network-growing proofs, by name of the proof.

Found on seeds 100 and above, which are not among the reported ones.
"""

# Of PPO and the policy network, the same for both tasks and both profiles. What
# is not named here is the profile's.
_TRAINING = {
    "run": {"max_epochs": 40, "episodes_per_update": 8, "updates": 27},
    "ppo": {"entropy_coef": 0.01, "target_kl": 0.06},
    "update": {"learning_rate": 2e-3},
    "policy": {"feature_dim": 64, "hidden_dim": 64},
}

# Several steps an update. `upstream` makes one, as it does by definition.
_PROFILES = {
    "default": {"update": {"passes": 6, "minibatches": 4}},
    "upstream": {},
}

# Trained like a profile, with changes: (profile, changes).
VARIANTS = {
    # T27 and T28 of docs/training.md on the reference implementation's side.
    "upstream_averages": ("default", {
        "ppo": {"policy_mean": "upstream", "entropy_over": "upstream",
                "statistics_over": "upstream"},
    }),
}

# Seeds go through their stages by themselves: a policy decides about planting,
# blending strength, keeping and removing.
_STAGES = {"auto_forward_g1": True, "auto_forward_g2": True,
           "auto_forward_g3": True}

TASKS = {
    "digits": {
        "task": "digits_impaired",
        "data": "data/digits.csv.gz",
        "environment": {"samples_per_epoch": 128, "seed_lr": 0.05, **_STAGES},
    },
    "text": {
        "task": "text_impaired",
        "data": "/usr/share/common-licenses",
        "environment": {"seed_lr": 0.3, **_STAGES},
    },
}


def merged(*layers):
  """Later layers win, key by key of nested dictionaries."""
  result = {}
  for layer in layers:
    for key, value in layer.items():
      both = isinstance(value, dict) and isinstance(result.get(key), dict)
      result[key] = merged(result[key], value) if both else value
  return result


def training_config(name, method, seed, overrides=None):
  """Configuration of server and trainer for one training run.

  method: a profile or a variant.
  """
  task = TASKS[name]
  profile, changes = VARIANTS.get(method, (method, {}))
  return merged(
      _TRAINING, _PROFILES[profile], changes,
      {"profile": profile, "environment": task["environment"],
       "run": {"task": task["task"], "seed": seed, "minutes": 30,
               "checkpoint_every": 0},
       "policy": {"init_seed": seed}},
      overrides or {})
