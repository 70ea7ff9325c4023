"""Steps inside the switch: the only places where the truth about the cluster changes."""
