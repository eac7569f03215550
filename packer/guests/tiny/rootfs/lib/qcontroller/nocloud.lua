-- Applies the documented subset of NoCloud: nocloud.lua SEED_DIRECTORY STATE_DIRECTORY
--
-- Sets the host name, writes the files, and leaves what is to be executed in STATE/script. Each fault is one line,
-- a JSON string, in STATE/errors; a fault in one key does not keep the others from being applied.

local yaml = require("lyaml")

local seed, state = arg[1], arg[2]

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local function fault(message)
  local escaped = message:gsub('[%c"\\]', function(c) return string.format("\\u%04x", c:byte()) end)
  local file = assert(io.open(state .. "/errors", "a"))
  file:write('"', escaped, '"\n')
  file:close()
end

local function quoted(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

local function run(...)
  local words = {}
  for _, word in ipairs({ ... }) do words[#words + 1] = quoted(word) end
  return os.execute(table.concat(words, " "))
end

local function parse(name, text)
  local good, value = pcall(yaml.load, text)
  if not good then
    fault(name .. ": " .. tostring(value))
    return {}
  end
  if value == nil or value == yaml.null then return {} end
  if type(value) ~= "table" then
    fault(name .. ": not a mapping")
    return {}
  end
  return value
end

local function set_hostname(name)
  name = tostring(name):match("^[%w.-]+$")
  if not name then return fault("hostname: not a host name") end
  local short = name:match("^[^.]+")
  run("hostname", short)
  for path, text in pairs({
    ["/etc/hostname"] = short .. "\n",
    ["/etc/hosts"] = "127.0.0.1\tlocalhost\n127.0.1.1\t" .. name .. " " .. short .. "\n::1\tlocalhost\n",
    [state .. "/hostname"] = name .. "\n",
  }) do
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
  end
end

local DECODERS = {
  [""] = "cat",
  ["text/plain"] = "cat",
  ["b64"] = "base64 -d",
  ["base64"] = "base64 -d",
  ["gz"] = "gunzip -c",
  ["gzip"] = "gunzip -c",
  ["gz+b64"] = "base64 -d | gunzip -c",
  ["gz+base64"] = "base64 -d | gunzip -c",
  ["gzip+b64"] = "base64 -d | gunzip -c",
  ["gzip+base64"] = "base64 -d | gunzip -c",
}

local function write_file(entry)
  if type(entry) ~= "table" or type(entry.path) ~= "string" or entry.path:sub(1, 1) ~= "/" then
    return fault("write_files: an entry has no absolute path")
  end
  local decoder = DECODERS[entry.encoding or ""]
  if not decoder then return fault("write_files: " .. entry.path .. ": unknown encoding") end
  local content = entry.content
  if content == nil or content == yaml.null then content = "" end
  run("mkdir", "-p", entry.path:match("^(.*)/[^/]*$") .. "/")
  local pipe = io.popen(decoder .. (entry.append == true and " >> " or " > ") .. quoted(entry.path), "w")
  pipe:write(tostring(content))
  if not pipe:close() then return fault("write_files: " .. entry.path .. ": cannot be written") end
  -- YAML reads an unquoted 0644 as an octal number.
  local permissions = entry.permissions or "0644"
  if math.type(permissions) == "integer" then permissions = string.format("%o", permissions) end
  if not run("chmod", permissions, entry.path) then fault("write_files: " .. entry.path .. ": permissions") end
end

local function write_script(text)
  local file = assert(io.open(state .. "/script", "wb"))
  file:write(text)
  file:close()
  run("chmod", "700", state .. "/script")
end

local function write_commands(commands)
  local lines = { "#!/bin/sh" }
  for _, command in ipairs(commands) do
    if type(command) == "table" then
      local words = {}
      for _, word in ipairs(command) do words[#words + 1] = quoted(word) end
      lines[#lines + 1] = table.concat(words, " ")
    elseif command ~= yaml.null then
      lines[#lines + 1] = tostring(command)
    end
  end
  write_script(table.concat(lines, "\n") .. "\n")
end

local function list(config, key)
  local value = config[key]
  if value == nil or value == yaml.null then return {} end
  if type(value) ~= "table" then
    fault(key .. ": not a list")
    return {}
  end
  return value
end

local KNOWN = { hostname = true, fqdn = true, write_files = true, runcmd = true }

local function apply_config(config)
  for key in pairs(config) do
    if not KNOWN[key] then print("nocloud: ignored, not in the subset: " .. tostring(key)) end
  end
  for _, entry in ipairs(list(config, "write_files")) do write_file(entry) end
  local commands = list(config, "runcmd")
  if #commands > 0 then write_commands(commands) end
end

local meta = parse("meta-data", read(seed .. "/meta-data") or "")
local text = read(seed .. "/user-data") or ""
local config = {}
if text:match("^#!") then
  write_script(text)
elseif text:match("^#cloud%-config%s") or text == "#cloud-config" then
  config = parse("user-data", text)
elseif text:match("%S") then
  fault("user-data: neither #cloud-config nor #!")
end

local name = config.hostname or config.fqdn or meta["local-hostname"]
if name and name ~= yaml.null then set_hostname(name) end
if meta["instance-id"] then
  local file = assert(io.open(state .. "/instance-id", "w"))
  file:write(tostring(meta["instance-id"]), "\n")
  file:close()
end
apply_config(config)
