-- For wrk: sends the JSON documents of $BODIES (one a line) in turn to $URL_PATH.
-- Requests are formatted once, before the clock starts.
local requests, at = {}, 0

function init(_)
  local headers = { ["Authorization"] = "Bearer " .. os.getenv("API_KEY"), ["Content-Type"] = "application/json" }
  for line in io.lines(os.getenv("BODIES")) do
    requests[#requests + 1] = wrk.format("POST", os.getenv("URL_PATH"), headers, line)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format('\n{"requests":%d,"seconds":%.4f,"p50_ms":%.3f,"p99_ms":%.3f,"bad":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
