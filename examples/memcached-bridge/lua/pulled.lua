-- A stream is over, whatever way it ended.

if ngx.ctx.is_counted then
    ngx.shared.bridge_streams:incr("streams", -1)
end
