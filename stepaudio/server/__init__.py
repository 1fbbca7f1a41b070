"""The service: OpenAI's Realtime socket and REST shapes over HTTP. Rim: sockets, tasks, limits, metrics."""
