-- One bucket of a shared limit: grants tokens as a stretch of virtual time (src/limit/lease.rs says why that is exact).
-- KEYS[1] the bucket. ARGV: ns of a token, us until full, least and wanted tokens, the share granted unasked.
-- Answers the time, the beginning and the end of the stretch, in microseconds.
local token, fill = tonumber(ARGV[1]), tonumber(ARGV[2])
local least, want, share = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local state = redis.call('HMGET', KEYS[1], 'a', 'f')
local from, was = tonumber(state[1]) or now, tonumber(state[2]) or fill
if from < now then from = now end
-- Another rate has written this: the bucket stays as full, in per cent, as it was.
if was ~= fill and was > 0 then from = now + math.ceil((from - now) * fill / was) end
-- The clock has gone back: nobody has to wait for longer than a full bucket takes.
if from > now + fill then from = now + fill end
local room = math.floor((now + fill - from) * 1000 / token)
local n = math.min(room, math.max(want, math.floor(room / share)))
if n < least then n = 0 end
local to = from + math.ceil(n * token / 1000)
if n > 0 then
  redis.call('HSET', KEYS[1], 'a', string.format('%.0f', to), 'f', string.format('%.0f', fill))
  redis.call('PEXPIRE', KEYS[1], math.ceil((to - now) / 1000) + 1000)
end
return {now, from, to}
