"""How the few deploy operators become each format's operators."""
