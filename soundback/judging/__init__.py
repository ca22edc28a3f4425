"""How good the sound is: metrics, a judge, a report."""
