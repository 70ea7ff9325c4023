"""What kind of error a server has reported."""

from __future__ import annotations

from shardman.errors import Code

#: By SQLSTATE, or else by its class, the first two characters.
_CODES = {
    "08": Code.NODE_UNREACHABLE,
    "22": Code.BAD_ARGUMENT,
    "28": Code.NODE_UNREACHABLE,
    "53": Code.SERVER_FULL,
    "2200H": Code.TABLE_UNSUITABLE,
    "25006": Code.SERVER_UNSUITABLE,
    "3D000": Code.NODE_UNREACHABLE,
    "40001": Code.BUSY,
    "40P01": Code.LOCK_TIMEOUT,
    "42601": Code.BAD_ARGUMENT,
    "42602": Code.BAD_ARGUMENT,
    "42703": Code.BAD_ARGUMENT,
    "42501": Code.PERMISSION_DENIED,
    "42704": Code.OBJECT_MISSING,
    "42710": Code.NAME_TAKEN,
    "42809": Code.NAME_TAKEN,
    "42883": Code.OBJECT_MISSING,
    "42P01": Code.OBJECT_MISSING,
    "42P07": Code.NAME_TAKEN,
    "3F000": Code.OBJECT_MISSING,
    "55006": Code.BUSY,
    "55P03": Code.LOCK_TIMEOUT,
    "57014": Code.LOCK_TIMEOUT,
    "57P01": Code.NODE_UNREACHABLE,
    "57P02": Code.NODE_UNREACHABLE,
    "57P03": Code.NODE_UNREACHABLE,
    "57P05": Code.NODE_UNREACHABLE,
    "SHM02": Code.NOT_A_MEMBER,
    "SHM04": Code.NOT_THE_LORD,
    "SHM05": Code.COPIES_DIFFER,
    "SHM06": Code.NOT_IN_CLUSTER,
    "SHM07": Code.SERVER_IS_A_COPY,
    "SHM08": Code.NAME_TAKEN,
    "SHM09": Code.TABLE_UNSUITABLE,
}


def of_sqlstate(sqlstate: str | None) -> Code:
    """The code of what PostgreSQL reports.

    Args:
        sqlstate: None when no server has said anything: it was libpq, which lost or never had a connection.
    """
    if sqlstate is None:
        return Code.NODE_UNREACHABLE
    return _CODES.get(sqlstate) or _CODES.get(sqlstate[:2]) or Code.SERVER_ERROR
