"""Where a method wins: records apart by what is known of them."""
