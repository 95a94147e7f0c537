"""Controls: scorers that know nothing, and changes of the test whose effect is known before it is made."""
