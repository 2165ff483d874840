-- Every request differs from every one before it: path, query and cookie.
local head = {}
local count = os.time() * 1000000

function init(args)
  for name, value in pairs(wrk.headers) do
    head[#head + 1] = name .. ": " .. value
  end
  head = table.concat(head, "\r\n")
end

function request()
  count = count + 1
  return string.format("GET /fresh/%.0f?q=%.0f HTTP/1.1\r\n%s\r\nCookie: session=%.0f\r\n\r\n", count, count, head, count)
end
