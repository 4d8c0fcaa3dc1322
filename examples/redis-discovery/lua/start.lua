-- When a worker starts.

require("discovery.nodes").start()
