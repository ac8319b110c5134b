// What a tool over JDBC does with the door before and while it shows anything: each answer is a line, a name and a value.
// Run as `java -cp postgresql.jar Door.java`; whom to ask, and as who, is in the environment, as psql takes it.

import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

public class Door {
    /** Often enough that the driver prepares on the server, and then asks for values in binary. */
    private static final int TIMES = 8;

    private static void say(String name, Object value) {
        System.out.println(name + "\t" + value);
    }

    private static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        while (rows.next()) {
            values.add(rows.getString(name));
        }
        return values;
    }

    private static void describe(DatabaseMetaData data) throws SQLException {
        say("schemas", column(data.getSchemas(), "TABLE_SCHEM"));
        say("catalogs", column(data.getCatalogs(), "TABLE_CAT"));
        say("tables", column(data.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME"));
        say("columns", column(data.getColumns(null, "public", "blobs", "%"), "COLUMN_NAME"));
        say("types", column(data.getColumns(null, "public", "blobs", "%"), "TYPE_NAME"));
        say("type info", column(data.getTypeInfo(), "TYPE_NAME").contains("timestamptz"));
        say("primary keys", column(data.getPrimaryKeys(null, "public", "events"), "COLUMN_NAME"));
        say("indexes", column(data.getIndexInfo(null, "public", "events", false, false), "INDEX_NAME"));
        say("imported keys", column(data.getImportedKeys(null, "public", "events"), "FK_NAME"));
        say("exported keys", column(data.getExportedKeys(null, "public", "events"), "FK_NAME"));
        say("procedures", column(data.getProcedures(null, "public", "%"), "PROCEDURE_NAME"));
        say("functions", column(data.getFunctions(null, "public", "%"), "FUNCTION_NAME"));
        say("best row", column(data.getBestRowIdentifier(null, "public", "events", 1, true), "COLUMN_NAME"));
        say("table types", column(data.getTableTypes(), "TABLE_TYPE").contains("TABLE"));
    }

    private static void ask(Connection connection) throws SQLException {
        String query = "SELECT id, event_time, day, operation FROM events WHERE operation = ? AND event_time >= ? ORDER BY id";
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            for (int time = 1; time <= TIMES; time++) {
                statement.setString(1, "New-InboxRule");
                statement.setTimestamp(2, Timestamp.valueOf("2020-01-01 00:00:00"));
                try (ResultSet rows = statement.executeQuery()) {
                    while (rows.next()) {
                        say("asked " + time, rows.getString(1) + " " + rows.getTimestamp(2).toInstant() + " " + rows.getDate(3));
                    }
                }
            }
        }
        query = "SELECT data_type FROM information_schema.columns WHERE table_name = 'blobs' ORDER BY ordinal_position";
        try (Statement statement = connection.createStatement()) {
            say("data types", column(statement.executeQuery(query), "data_type"));
        }
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(7);
            say("by sevens", column(statement.executeQuery("SELECT id FROM events"), "id").size());
        }
        connection.commit();
        connection.setAutoCommit(true);
        try (Statement statement = connection.createStatement()) {
            statement.setMaxRows(5);
            say("at most five", column(statement.executeQuery("SELECT * FROM events"), "id").size());
        }
    }

    private static void refused(Connection connection, String name, String query, int timeout) {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(timeout);
            statement.execute(query);
            say(name, "not refused");
        } catch (SQLException refusal) {
            say(name, refusal.getSQLState());
        }
    }

    public static void main(String[] arguments) throws SQLException {
        Properties properties = new Properties();
        properties.put("user", System.getenv("PGUSER"));
        properties.put("password", System.getenv("PGPASSWORD"));
        properties.put("ApplicationName", "Door");
        String address = System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        try (Connection connection = DriverManager.getConnection("jdbc:postgresql://" + address, properties)) {
            describe(connection.getMetaData());
            ask(connection);
            refused(connection, "write", "DELETE FROM events", 0);
            refused(connection, "too long", "SELECT count(*) FROM generate_series(1, 10000000000) a", 1);
            say("after all", connection.isValid(5));
        }
    }
}
