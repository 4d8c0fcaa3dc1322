-- Where the access log goes, and its limits.

return {
    brokers = {
        { host = "127.0.0.1", port = 9092 },
    },
    topic = "access-log",

    -- Of the request, what is worth a place in the record. Cookies and credentials are not.
    headers = { "Host", "Referer", "User-Agent", "X-Request-Id" },
    value_length_max = 1024,
    arguments_max = 32,

    producer = {
        producer_type = "async",
        socket_timeout = 3000,      -- ms, as all times here
        keepalive_timeout = 60 * 1000,
        keepalive_size = 8,
        request_timeout = 2000,
        required_acks = 1,
        max_retry = 3,
        retry_backoff = 200,
        flush_time = 500,           -- a record waits no longer than this for others
        batch_num = 200,            -- records that go together
        batch_size = 512 * 1024,    -- bytes, likewise
        max_buffering = 20000,      -- records per worker that wait; more are dropped
    },
}
