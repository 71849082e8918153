// Package failpoint names moments at which a crash is worth a test. In programs built with the tag chaos a named moment can
// kill the process; in all others there is nothing of it.
package failpoint

// Variable is the environment variable NAME:N that makes the N-th Hit of NAME, counted from 1, kill the process.
const Variable = "NSREADY_FAILPOINT"
