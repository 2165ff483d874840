-- The same request to one of N hosts after another: `wrk … -- N commit`, or `spread` for as many addresses.
local requests = {}
local at = 0

function init(args)
  local head = {}
  for name, value in pairs(wrk.headers) do
    if name ~= "Host" then head[#head + 1] = name .. ": " .. value end
  end
  head = table.concat(head, "\r\n")
  for n = 1, tonumber(args[1]) do
    requests[n] = string.format("GET /some/path?x=1 HTTP/1.1\r\nHost: %s-%d.bench.localhost\r\n%s\r\n\r\n", args[2], n, head)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
