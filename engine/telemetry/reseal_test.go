package telemetry

import (
	"encoding/binary"
	"hash/crc32"
)

// reseal puts another offset of the dictionary into a frame and makes its checksum right.
func reseal(frame []byte, dictionary uint32) {
	binary.LittleEndian.PutUint32(frame[40:], dictionary)
	binary.LittleEndian.PutUint32(frame[8:], crc32.Checksum(frame[12:], castagnoli))
}
