-- Addresses and limits of the gateway.

return {
    redis = {
        host = "127.0.0.1",
        port = 6379,
        connect_timeout_ms = 200,
        send_timeout_ms = 200,
        read_timeout_ms = 500,
        idle_timeout_ms = 60 * 1000,
        connections_max = 32,           -- per worker; further requests wait
        waiting_max = 128,              -- in all, for a connection
    },

    -- What Redis is asked for.
    secrets = "gateway:secrets",        -- hash: a caller's key -> its secret
    canary = "gateway:canary",          -- set: addresses whose requests go to the canary

    -- How long an answer of Redis holds.
    secret_s = 10,
    canary_s = 1,

    key_length_max = 64,
    nonce_length_max = 64,
    clock_difference_max_s = 300,       -- between a caller and this server

    -- From one address: so many a second, this many more at once.
    address_rate = 50,
    address_burst = 50,
    -- With one key: so many in a window.
    key_quota = 100,
    key_window_s = 60,

    arguments_max = 20,                 -- of a request to lua/api/
}
