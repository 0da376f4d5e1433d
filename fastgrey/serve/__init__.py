"""The policy server: decisions over sockets, for Postfix, Exim and whoever else asks."""
