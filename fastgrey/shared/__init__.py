"""Records that several machines share: engines that hold them, and decisions on what they hold."""
