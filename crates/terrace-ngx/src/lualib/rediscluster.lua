-- resty.rediscluster under the name by which its users require it.

return require "resty.rediscluster"
