"""systemd: the units that run the agent and hold its socket."""

from __future__ import annotations

from collections.abc import Sequence

from docket.hooks.plan import AgentAddress, FileChange, Paths, Plan

ENGINE = "systemd"
SERVICE = "docket-agent.service"
SOCKET = "docket-agent.socket"

_SOCKET = """\
# Written by docket agent setup systemd; --undo removes it.
[Unit]
Description=Socket of the docket agent

[Socket]
ListenStream={listen}
Backlog=1024
NoDelay=yes

[Install]
WantedBy=sockets.target
"""

_SERVICE = """\
# Written by docket agent setup systemd; --undo removes it.
[Unit]
Description=docket agent: images for this host's container engines, from its peers
Requires={socket}
After={socket}{network}

[Service]
Type=notify
NotifyAccess=main
EnvironmentFile=-{environment}
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=2
TimeoutStopSec=30
LimitNOFILE=65536
{hardening}
[Install]
WantedBy={target}
Also={socket}
"""

# /var stays in one mount: the agent hard-links files of engines (link(2): not across mounts)
_HARDENING = """\
UMask=0022
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""

# what a user's manager may not do
_SYSTEM_HARDENING = """\
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER
AmbientCapabilities=
DevicePolicy=closed
PrivateDevices=yes
PrivateTmp=yes
ProtectSystem=full
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
StateDirectory=docket
"""


def plan_systemd(paths: Paths, agent: AgentAddress, command: Sequence[str]) -> Plan:
    """The units of an agent that *command* starts; ``--listen`` and the store are added to it."""
    listen = ["--listen", agent.authority, "--location", str(paths.store)]
    user = " --user" if paths.is_user else ""
    service = _SERVICE.format(
        socket=SOCKET,
        network="" if paths.is_user else " network-online.target\nWants=network-online.target",
        environment="%h/.config/docket/agent.env" if paths.is_user else "/etc/docket/agent.env",
        command=" ".join(map(_quoted, [*command, *listen])),
        hardening=_HARDENING + ("" if paths.is_user else _SYSTEM_HARDENING),
        target="default.target" if paths.is_user else "multi-user.target",
    )
    socket = _SOCKET.format(listen=agent.authority)
    changes = (
        FileChange(paths.units / SERVICE, service.encode(), "runs the agent"),
        FileChange(paths.units / SOCKET, socket.encode(), f"holds {agent.authority} for it"),
    )
    steps = (f"systemctl{user} daemon-reload", f"systemctl{user} enable --now {SOCKET} {SERVICE}")
    return Plan(ENGINE, changes, (), steps)


def _quoted(word: str) -> str:
    """A word of ExecStart= (systemd.syntax(7) § quoting; % and $ are doubled)."""
    doubled = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    if doubled and not set(doubled) & set(" \t\n\"';"):
        return doubled
    escaped = doubled.replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
