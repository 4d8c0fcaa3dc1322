-- wrk asks for the keys in turn, from 1 on. Arguments: the word in the path that stands for the key, and how many keys.

local requests = {}
local last = 0

function init(args)
    for key = 1, tonumber(args[2]) do
        requests[key] = wrk.format("GET", (wrk.path:gsub(args[1], key)))
    end
end

function request()
    last = last % #requests + 1
    return requests[last]
end
