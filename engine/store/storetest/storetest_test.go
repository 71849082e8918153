package storetest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

func TestDatabase(t *testing.T) {
	var urls [2]string
	t.Run("lifetime", func(t *testing.T) {
		for i := range urls {
			urls[i] = storetest.Database(t)
			conn, err := pgx.Connect(t.Context(), urls[i])
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close(context.Background()) })
			// The same table in both: they are apart.
			if _, err := conn.Exec(t.Context(), "CREATE TABLE here (x int)"); err != nil {
				t.Fatal(err)
			}
		}
	})
	for _, url := range urls {
		conn, err := pgx.Connect(t.Context(), url)
		if err == nil {
			conn.Close(t.Context())
			t.Errorf("%s still exists after its test", url)
		}
	}
}
