-- Addresses and limits of the bridge.

return {
    backends = {
        { host = "127.0.0.1", port = 11211 },
        { host = "127.0.0.1", port = 11212 },
    },

    connect_timeout_ms = 500,
    send_timeout_ms = 500,
    read_timeout_ms = 2000,
    idle_timeout_ms = 60 * 1000,
    connections_max = 100,          -- idle ones, per worker and backend
    attempts_max = 3,               -- to reach a backend, one after the other
    attempt_pause_s = 0.2,

    batch = 16,                     -- keys that one request to a backend asks for
    poll_s_min = 0.02,              -- between two requests for messages that are not there yet
    poll_s_max = 0.5,

    wait_s_default = 30,            -- a stream ends after so long without a message
    wait_s_max = 300,
    limit_default = 1000,           -- or after so many messages
    limit_max = 100000,

    streams_max = 500,
    arguments_length_max = 512,
    keys_s = 600,                   -- how long the meaning of arguments is kept
    message_bytes_max = 1024 * 1024,
    inflate_step_bytes = 4096,      -- compressed bytes that are inflated at once
}
