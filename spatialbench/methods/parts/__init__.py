"""What several methods share: pure functions and small modules, each an equation of its paper."""
