"""Ring 1, pure: data and decisions. No ``await``, no clock, no thread, no network, no torch."""
