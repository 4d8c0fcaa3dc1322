-- Where Consul is, what it is asked for, and limits.

return {
    consul = {
        host = "127.0.0.1",
        port = 8500,
        folder = "redis-cluster/",
        connect_timeout_ms = 500,
        send_timeout_ms = 500,
        read_timeout_ms = 2000,
        idle_timeout_ms = 60 * 1000,
        answer_bytes_max = 64 * 1024,
    },
    interval_s = 1,                 -- between two questions
    nodes_max = 64,

    redis = {
        connect_timeout_ms = 500,
        send_timeout_ms = 500,
        read_timeout_ms = 1000,
        idle_timeout_ms = 60 * 1000,
        connections_max = 32,       -- idle ones, per worker and node
        attempts_max = 1,           -- to reach a node, before another is asked
        redirections_max = 5,
    },
    key_length_max = 128,
}
