package postgres

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ownSetting is a setting without meaning to PostgreSQL: it shows in the process list which cluster a postmaster serves.
const ownSetting = "nsready.directory"

const timescaleLibrary = "timescaledb"

// timescaleSettings go with TimescaleDB, which has a background worker for each database beside those for its policies.
var timescaleSettings = map[string]string{
	"max_worker_processes":        "24",
	"timescaledb.telemetry_level": "off",
}

func defaultSettings(noSync bool) map[string]string {
	settings := map[string]string{
		"checkpoint_timeout": "15min",
		"log_line_prefix":    "%m [%p] %q%u@%d ",
		"log_timezone":       "UTC",
		"max_connections":    "100",
		"max_wal_size":       "4GB",
		"shared_buffers":     fmt.Sprintf("%dMB", sharedBuffers(memory())>>20),
		"synchronous_commit": "on",
		"timezone":           "UTC",
		"wal_compression":    "on",
	}
	if noSync { // commits still wait for their write: a killed server loses nothing while the machine lives
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
		settings["shared_buffers"] = "128MB"
	}
	return settings
}

// sharedBuffers is an eighth of the memory, from 32 MB to 2 GB; 128 MB, PostgreSQL's own default, if memory is unknown (0).
func sharedBuffers(memory int64) int64 {
	if memory == 0 {
		return 128 << 20
	}
	return min(max(memory/8, 32<<20), 2<<30)
}

// memory returns how many bytes this machine or container has, 0 if unknown.
func memory() int64 {
	var total int64
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemTotal:" {
				kb, _ := strconv.ParseInt(fields[1], 10, 64)
				total = kb << 10
			}
		}
	}
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && limit > 0 && (total == 0 || limit < total) { // "max" is no number
			total = limit
		}
	}
	return total
}
